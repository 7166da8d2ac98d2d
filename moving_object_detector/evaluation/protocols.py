"""The rules by which data sets are scored: which frames count, and of what the mean is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from moving_object_detector.common.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """The rule of one data set."""

    name: str
    average: Literal['sequences', 'frames']
    """``sequences``: the mean of the sequences' means, each counting the same; ``frames``: the mean over all frames
    scored, of whatever sequence."""
    ends: bool
    """Whether the first and the last frame of a sequence are scored."""
    rule: str
    """The rule in words."""

    def scored(self, index: int, frame_count: int, annotated: bool) -> bool:
        """Tell whether a frame is scored.

        Args:
            index: Number of the frame in its sequence, from 0.
            frame_count: Frames of the sequence.
            annotated: Whether the frame has an annotation.

        """
        return annotated and (self.ends or 0 < index < frame_count - 1)


PROTOCOLS: Final = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            'davis2016',
            'sequences',
            ends=False,
            rule='all frames but the first and the last of each sequence; mean of the means of the sequences',
        ),
        Protocol('segtrackv2', 'frames', ends=True, rule='mean over all annotated frames of all sequences'),
        Protocol('fbms59', 'frames', ends=True, rule='mean over the annotated frames of all sequences'),
        Protocol('annotated', 'sequences', ends=True, rule='all annotated frames; mean of the means of the sequences'),
    )
}
"""By name. ``annotated`` is for footage of no published data set."""


def find_protocol(name: str) -> Protocol:
    """Return the rule of this name.

    Raises:
        UserError: There is none.

    """
    if name not in PROTOCOLS:
        raise UserError(f'there is no protocol {name}; there are {", ".join(PROTOCOLS)}')
    return PROTOCOLS[name]
