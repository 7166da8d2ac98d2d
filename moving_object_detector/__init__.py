"""Which pixels of a moving camera's video move on their own, on ROS 2 and without annotations."""

import os

__version__ = '0.1.0'

# Read when NumPy is first loaded. Our products of matrices are small: OpenBLAS's threads wait for each other longer
# than they compute, in loops that keep the cores from everything else.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
# Read by OpenCV when it decodes first: what states more pixels is refused before memory is taken.
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(2**27))
