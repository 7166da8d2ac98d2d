from __future__ import annotations

from moving_object_detector.bench.report import frame_table, markdown, stage_table


def test_frames(frame_group):
    frame_group['cases'][1]['memory']['gpu'] = 812.3
    assert frame_table([frame_group]) == (
        '| setting | engine | median ms | p95 | p99 | frames/s | peak MB | vs naive | vs reference |\n'
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n'
        '| cpu: 192x96, -1..+1, dis-medium | naive float32 on cpu | 200 | 400 | 600 | 5 | 400 '
        '|  | 0.62x (0.6 to 0.65) |\n'
        '| cpu: 192x96, -1..+1, dis-medium | torch float32 on cpu | 125 | 250 | 375 | 8 | 400, GPU 812 '
        '| 1.6x (1.5 to 1.7) |  |\n'
        '| cpu: 192x96, -1..+1, dis-medium | **openvino float32 on cpu** | 62.5 | 125 | 187.5 | 16 | 400 '
        '| 3.2x (3.0 to 3.3) | 2.0x (1.9 to 2.1) |'
    )


def test_stages(frame_group):
    assert stage_table(frame_group) == (
        '| cpu, median ms | torch float32 on cpu | openvino float32 on cpu |\n'
        '| --- | --- | --- |\n'
        '| flow | 25 | 24 |\n'
        '| generator | 100 | 38 |\n'
        '| **frame** | 125 | 62.5 |'
    )


def test_a_whole_report(frame_group):
    report = {
        'machine': 'a processor, 2 cores, linux',
        'image': '640x480',
        'load average': [0.25, 2.0],
        'seconds': 120.4,
        'versions': {'torch': '2.13.0'},
        'skipped': {'torch float16 on cpu': 'it cannot'},
        'groups': [frame_group],
    }
    text = markdown(report)
    parts = text.split('\n\n')
    assert parts[0] == (
        'a processor, 2 cores, linux; 640x480 images; load average 0.2 before and 2.0 after; 120 s; torch 2.13.0'
    )
    assert parts[2:] == [
        frame_table([frame_group]),
        stage_table(frame_group),
        '- torch float16 on cpu left out: it cannot',
    ]
