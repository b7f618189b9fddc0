"""One module per `model.name`, imported by name (model.registry); each ends in `Model = ...`."""
