"""What the executors are made of: the channel to a worker process, its start, its life and its end.

An executor is read without this folder. The folder says how a task gets to a worker and its result back. Nothing here
imports an executor, and this file imports nothing: a worker process comes through it before it imports torch.
"""
