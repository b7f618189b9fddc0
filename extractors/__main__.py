"""``python -m extractors NAME``: see extractors/run.py."""

import sys

from extractors.run import main

sys.exit(main())
