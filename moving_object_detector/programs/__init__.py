"""All programs of the package: their names, where they are and what they do; programs that are not part of a room."""

PROGRAMS = {
    'detect': ('nodes.detect', 'the node'),
    'play': ('nodes.play', 'publishes a folder of frames, a video or a bag, with `/clock` when asked'),
    'record': ('nodes.record', 'writes results to an MP4 and a bag'),
    'view': ('nodes.view', 'shows results live, on a page for a browser and to the Foxglove app'),
    'demo': ('nodes.demo', 'plays a clip through the real node and records what it says'),
    'evaluate': ('evaluation.evaluate', 'scores masks with a report; `evaluate compare`, `evaluate report`'),
    'train': ('training.train', 'trains the generator on your footage; `train flow` trains PWC-Net'),
    'render': ('synthetic.render', 'renders a clip with exact masks, flow, depth and poses'),
    'make_bag': ('programs.make_bag', 'folders and videos to a bag, with masks as truth'),
    'make_video': ('programs.make_video', 'a folder or bag to a video'),
    'contact_sheet': ('programs.contact_sheet', 'evenly spaced frames in one picture'),
    'bench': ('bench', 'times stages, frames and engines side by side'),
    'build_engine': ('programs.build_engine', 'builds the engines of a configuration before the first start'),
    'quantise': ('programs.quantise', 'measures the ranges that `precision: int8` needs'),
    'export_onnx': ('programs.export_onnx', 'writes generator and PWC-Net as ONNX, checked against PyTorch'),
    'convert_weights': ('programs.convert_weights', "imports the authors' checkpoints"),
}
"""By name: the module below the package whose ``main`` it is, and a line of help; setup.py and the README use it."""


def program_table() -> str:
    """Return the programs as a Markdown table."""
    return '\n'.join(
        ['| program | what it does |', '|---|---|', *(f'| `{name}` | {text} |' for name, (_, text) in PROGRAMS.items())]
    )
