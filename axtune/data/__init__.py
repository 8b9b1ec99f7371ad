"""From files to token ids and labels, every row accounted for.

In the order of a row's way: ``sources``, ``readers``, ``formats`` and ``hermes``, ``parse``,
``conversation``, ``validate``, ``render``, ``samples``; ``pipeline`` takes it all the way. Stands
on `checkpoint`; imports no torch at the doors.
"""
