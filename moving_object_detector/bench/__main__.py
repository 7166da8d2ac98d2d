"""``python -m moving_object_detector.bench``."""

import sys

from moving_object_detector.bench import main

if __name__ == '__main__':
    sys.exit(main())
