"""The real node hears CameraInfo and Odometry, and says where it knows its motion from."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from detect_bench import HEIGHT, LOSSLESS, PERIOD, WIDTH, header
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo


def camera_info(width=WIDTH, height=HEIGHT):
    k = [float(WIDTH), 0.0, WIDTH / 2, 0.0, float(WIDTH), HEIGHT / 2, 0.0, 0.0, 1.0]
    return CameraInfo(header=header(0), width=width, height=height, distortion_model='plumb_bob', d=[0.0] * 5, k=k)


def test_motion_is_known_once_camera_info_and_odometry_come_and_not_when_they_go_wrong(start_detect):
    mount = {'odometry.topic': '/odom', 'odometry.extrinsics': '0.2 0 0 -0.5 0.5 -0.5 0.5'}
    detect = start_detect({**LOSSLESS, **mount})
    detect.wait_line('active: waiting for images on /camera/image_raw')
    detect.watch_masks()
    detect.wait_status(lambda message, _: 'camera_info has not come' in message, 'no camera_info', detect.send)
    info = detect.publisher(CameraInfo, '/camera/camera_info')

    def send_with_info():
        info.publish(camera_info())
        detect.send()

    detect.wait_status(lambda message, _: '/odom has not come' in message, 'no odometry', send_with_info)

    odometry = detect.publisher(Odometry, '/odom')

    def send_both():
        message = Odometry(header=header(detect.stamp + PERIOD, 'odom'), child_frame_id='base')
        message.pose.pose.orientation.w = 1.0
        odometry.publish(message)
        detect.send()

    detect.wait_status(lambda _, values: values['motion'] == 'odometry on /odom', 'known motion', send_both)
    assert detect.values['intrinsics'] == 'camera_info'
    detect.wait_status(lambda message, values: 'lags' in message and 'alone' in values['motion'], 'a lag', detect.send)
    detect.wait_status(lambda _, values: values['motion'] == 'odometry on /odom', 'known motion again', send_both)

    def send_with_wrong_info():
        info.publish(camera_info(640, 480))
        send_both()

    detect.wait_status(lambda message, _: '640x480' in message, 'a wrong camera_info', send_with_wrong_info)
    assert detect.values['intrinsics'] == 'assumed'
