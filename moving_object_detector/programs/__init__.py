"""All programs of the package; what of them belongs to no other room starts in ``commands.py``."""

PROGRAMS = {
    'detect': ('nodes.commands:detect', 'the node'),
    'play': ('nodes.commands:play', 'publishes a folder of frames, a video or a bag, with `/clock` when asked'),
    'record': ('nodes.commands:record', 'writes results to an MP4 and a bag'),
    'view': ('nodes.commands:view', 'shows results live, on a page for a browser'),
    'demo': ('nodes.commands:demo', 'plays a clip through the real node and records what it says'),
    'evaluate': ('evaluation.evaluate:main', 'scores masks with a report; `evaluate compare`, `evaluate report`'),
    'train': ('training.train:main', 'trains the generator on your footage; `train flow` trains PWC-Net'),
    'render': ('programs.commands:render', 'renders a clip with exact masks, flow, depth and poses'),
    'make_bag': ('programs.commands:make_bag', 'folders and videos to a bag, with masks as truth'),
    'make_video': ('programs.commands:make_video', 'a folder or bag to a video'),
    'contact_sheet': ('programs.commands:contact_sheet', 'evenly spaced frames in one picture'),
    'bench': ('programs.commands:bench', 'times stages, frames and engines side by side'),
    'quantise': ('programs.commands:quantise', 'measures the ranges that `precision: int8` needs'),
    'export_onnx': ('programs.commands:export_onnx', 'writes generator and PWC-Net as ONNX, checked against PyTorch'),
    'get_weights': ('programs.commands:get_weights', 'fetches weights of RAFT-small or PWC-Net'),
    'convert_weights': ('programs.commands:convert_weights', "imports the paper's TensorFlow checkpoints"),
}
"""By name: module below the package and function, and a line of help; setup.py and the README use it."""
