"""Which pixels of a moving camera's video move on their own, on ROS 2 and without annotations."""

__version__ = '0.1.0'
