"""One thread: the networks here are tiny, and threads that wait for each other on a busy machine are not."""

import torch

torch.set_num_threads(1)
