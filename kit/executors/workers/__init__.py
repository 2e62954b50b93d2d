"""The parts of the executors: the channel to a worker process, and the worker's start, work and end.

An executor can be understood without this folder, which sends a task to a worker and its result back. No module here
imports an executor, and this file imports nothing: a worker process imports it before torch.
"""
