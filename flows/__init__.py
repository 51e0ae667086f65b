"""Runs of a study: in parallel, on a schedule, from the command line."""

from atlas import importing as importing  # makes Python load this package by the digest of its sources, too
