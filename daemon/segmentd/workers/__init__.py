"""Child processes for work that may crash, hang or eat memory: decoders of files from outside.

A call names a function by text and hands over plain JSON and open file descriptors; plain JSON and
arrays come back. Nothing is unpickled on either side, so that a decoder which a hostile file has taken
over cannot run code in the daemon.
"""

from segmentd.workers.pool import Session, WorkerPool
from segmentd.workers.process import Reply

__all__ = ["Reply", "Session", "WorkerPool"]
