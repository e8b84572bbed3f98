"""What mailrelay can do on this machine: ``make bench``, or ``python -m benchmarks [NAME ...]``.

    events.py     a measurement; each is a module with one idea and a function `measure`
    stack.py      the relay's parts, as the Procfile starts them, for a measurement to use
    processes.py  one real process, and the CPU it used
    machine.py    where and of what a figure was measured
    result.py     what a measurement found: a table for people, a file for programs
    __main__.py   runs the measurements and prints the table

Everything listens on free ports of 127.0.0.1 and keeps its state in a temporary folder. It counts
CPU by /proc, so it needs Linux.
"""
