"""Learning a task: a skorch net that is trained under the penalty of a memory.

`net.py` has the class; what it does is in functions that take the net, in the
order in which a task meets them: `rehearsal.py`, `loop.py`, `estimate.py`.
"""

from .modules import MLP
from .net import EWCNet

__all__ = ["MLP", "EWCNet"]
