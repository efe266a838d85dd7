"""The simulator: the engine of the other rooms in virtual time, over recorded or made-up work.

Nothing here decides: every start and every eviction comes out of :func:`heddle.engine.decide`.
"""
