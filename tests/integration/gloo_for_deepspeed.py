"""Import DeepSpeed and let its ranks on CPUs talk by gloo, as they do where no compiler is.

It would compile an all-reduce by shared memory first, for 90 CPU s. On GPUs it uses NCCL.
"""

import deepspeed

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
