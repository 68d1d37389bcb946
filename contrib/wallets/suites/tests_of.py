"""The names of all tests of a module of Python's unittest, a line each.

    tests_of.py MODULE
"""

import sys
import unittest


def names(suite):
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from names(each)
        else:
            yield each.id()


sys.path.insert(0, ".")
found = list(names(unittest.defaultTestLoader.loadTestsFromName(sys.argv[1])))
# What cannot be imported is a test that fails, to the loader.
if not found or any("_FailedTest" in name for name in found):
    sys.exit(f"{sys.argv[1]} cannot be imported")
print("\n".join(found))
