"""The stages of a study, one module a verb."""

from atlas import importing as importing  # it loads this package's modules, too, by the digest of their source
