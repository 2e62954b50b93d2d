"""Generated scenes with their exact motion, the same on every platform."""

from kit.clips.scenes.actions import MOTIONS, TEXTURES, Camera, paint_action
from kit.clips.scenes.painting import Float32, UInt8
from kit.clips.scenes.shapes import paint_shapes

__all__ = ["MOTIONS", "TEXTURES", "Camera", "Float32", "UInt8", "paint_action", "paint_shapes"]
