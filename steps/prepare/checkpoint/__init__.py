"""Hugging Face safetensors checkpoints, read and written shard by shard.

Nothing here imports torch or holds more than a few megabytes of a model: 405B parameters in bf16
are 810 GB. The safetensors library maps a whole file and needs a numpy type for every dtype (bf16
and fp8 have none), so the format is read here directly: a JSON header, then bytes.
"""
