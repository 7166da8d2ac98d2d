"""The table of all programs; ``commands.py`` has the command lines of those without a folder of their own."""

PROGRAMS = {
    'detect': ('nodes.commands:detect', 'runs the ROS 2 node that publishes masks of moving objects'),
    'play': ('nodes.commands:play', 'publishes a folder of frames, a video or a bag as a camera, optionally `/clock`'),
    'record': ('nodes.commands:record', 'records the overlay as an MP4, masks and other topics as a bag'),
    'view': ('nodes.commands:view', 'shows the results live on a web page'),
    'demo': ('nodes.commands:demo', 'plays a clip through the node and records video, contact sheet and masks'),
    'evaluate': ('evaluation.evaluate:main', 'scores masks and writes a report; `evaluate compare`, `evaluate report`'),
    'train': ('training.train:main', 'trains the generator on your footage; `train flow` trains PWC-Net'),
    'render': ('programs.commands:render', 'renders a clip with exact masks, flow, depth and poses'),
    'make_bag': ('programs.commands:make_bag', 'converts folders and videos to a bag, with masks as ground truth'),
    'make_video': ('programs.commands:make_video', 'converts a folder or a bag to a video'),
    'contact_sheet': ('programs.commands:contact_sheet', 'draws evenly spaced frames into one picture'),
    'bench': ('programs.commands:bench', 'times stages and whole frames with every engine, side by side'),
    'quantise': ('programs.commands:quantise', 'measures the activation ranges that `precision: int8` needs'),
    'export_onnx': ('programs.commands:export_onnx', 'exports generator and PWC-Net to ONNX, checked against PyTorch'),
    'get_weights': ('programs.commands:get_weights', 'downloads the published weights of RAFT-small or PWC-Net'),
    'convert_weights': ('programs.commands:convert_weights', "converts the paper's TensorFlow checkpoints"),
}
"""By name: module and function, and a line of help; used by setup.py and the README."""
