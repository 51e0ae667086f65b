"""The stages of a study: one module per stage."""

from atlas import importing as importing  # makes Python load this package by the digest of its sources, too
