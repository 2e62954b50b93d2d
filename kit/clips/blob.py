"""Images as the input of a network in OpenCV's DNN module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kit.clips.clip import opencv
from kit.clips.flow import RGB_MEAN, RGB_STD
from kit.clips.scenes import Float32, UInt8

SIDE = 224  # pixels a side of what the network sees


def bgr_blob(images: Sequence[UInt8]) -> Float32:
    """Images ``(H, W, 3)`` in BGR as a blob ``(N, 3, 224, 224)``, by the steps of the forum thread of notebook 07.

    Shrink to 320x240 by area, a blob of 224x224 without the mean, red and blue swapped, divided by the deviation.

    >>> from kit import clips
    >>> clips.bgr_blob([np.zeros((480, 640, 3), np.uint8)] * 2).shape
    (2, 3, 224, 224)
    """
    cv2 = opencv()
    small = [cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA) for image in images]
    mean = (255 * np.array(RGB_MEAN)).tolist()
    blob = cv2.dnn.blobFromImages(small, 1 / 255, (SIDE, SIDE), mean, swapRB=True)
    return np.asarray(blob / np.array(RGB_STD, np.float32).reshape(1, 3, 1, 1), np.float32)
