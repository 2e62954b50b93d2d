"""One number of threads for OpenCV and PyTorch."""

from __future__ import annotations

import threading

import torch


def match_opencv_threads() -> None:
    """Give OpenCV as many threads as PyTorch has here. It has one number for the whole process, and keeps its pool."""
    import cv2

    if cv2.getNumThreads() != torch.get_num_threads():
        with _one_at_a_time:
            cv2.setNumThreads(torch.get_num_threads())


_one_at_a_time = threading.Lock()
