"""Runs of a study: in parallel, on a schedule, from the command line."""

from atlas import importing as importing  # it loads this package's modules, too, by the digest of their source
