"""Replacements of DVC's own functions for safety, for the running process only; those for speed are `dvc_speedups`.

`guard`: nothing is written outside outputs. `one_study`: other studies of the repository are ignored. `unedited`: no
settings are recorded that were edited meanwhile. `whole_lock`: a killed process leaves no part of dvc.lock.
"""
