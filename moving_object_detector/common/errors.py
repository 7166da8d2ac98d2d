"""Errors whose message a user can act on."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave is wrong; the message names the thing and the remedy.

    Programs print the message alone, without a traceback, and exit with status 2.
    """


class ModelError(UserError):
    """A model file is missing, unreadable, of the wrong shape or not safe to load."""


class ImageError(UserError):
    """An image message or file that cannot be decoded as its header says."""
