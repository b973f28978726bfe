"""``python -m mindcv_mnasnet COMMAND`` is ``mnasnet COMMAND``."""

import sys

from mindcv_mnasnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
