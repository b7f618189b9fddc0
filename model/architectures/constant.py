"""The mean of the training labels at every frame: what any model has to beat."""

from torch import nn

from model.batch import Batch
from model.frame_model import FrameModel


class Constant(FrameModel):
    """No parameters; in classification the first class, as nothing is learned."""

    dialogue = False

    def estimate(self, batch: Batch) -> dict:
        frames = batch.frames[batch.target]  # (B, L)
        zero = self.label_mean.new_zeros(*frames.shape, self.outputs)  # (B, L, outputs)
        return self.result(zero)

    def parts(self) -> dict[str, list[nn.Module]]:
        return {}


Model = Constant
