"""``python -m verification.gpu``: everything that is wanted from a machine with a GPU, in minutes, in one file.

``__main__.py`` runs the parts and stores what they find. Whatever touches the GPU does so in a process of its own
(``worker.py``), so that one that hangs or dies costs its own result and no other.
"""
