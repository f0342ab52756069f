"""Fuzzing of the QP layers: generators by kind, independent truth, and a driver.

`kinds` makes problems, `truth` knows about them without any layer, `judge` asks a layer and says
what its answer is worth, `test_fuzz` runs 2,000 of them, and ``python -m tests.fuzz`` any number.
"""
