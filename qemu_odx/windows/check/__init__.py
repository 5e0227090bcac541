"""Files of Windows vectors: IOCTL buffers, the SCSI commands they make Windows send, and what it answers its caller.

`vector_file.py` reads a file, `scene.py` makes the surroundings of a vector, `script.py` answers the model's commands
from it, `judge.py` holds what came against what the vector expects, `replay.py` does it for a whole file.
"""
