"""What mailrelay can do on this machine: ``make bench``, or ``python -m benchmarks [NAME ...]``.

Beside stock Celery, each measurement a module with one idea and a function `measure`:

    accept.py      how long the API takes for 1,000 recipients
    sending.py     AWS requests and CPU for an email
    throughput.py  emails a second of one worker, as far from AWS as a region is
    idle.py        how long an email takes when there is nothing else to do

Of mailrelay alone:

    sweep.py       what a sweep costs in a large table
    memory.py      whether processes grow
    workers.py     what a second worker adds
    fairness.py    how long a small sender waits behind a big one, by simulation
    capacity.py    capacity units for an email, by step (when named)
    events.py      what Celery's events cost (when named)
    pools.py       threads and greenlets (when named)

What they are made with:

    bench.py       what every measurement is told
    load.py        a backlog, worked off
    stack.py       a relay's parts, as a Procfile starts them
    stock/         the relay that mailrelay is compared with
    aws.py         the local AWS, which counts its requests and can be slower
    provider.py    a provider that is never the limit
    account.py     what DynamoDB says that a client has used
    processes.py   one real process, its CPU and its memory
    machine.py     where and of what a figure was measured
    cost.py        what a measurement on AWS itself costs
    result.py      what a measurement found: a table for people, a file for programs
    __main__.py    runs the measurements and prints the table

Everything listens on free ports of 127.0.0.1 and keeps its state in a temporary folder. It counts
CPU by /proc, so it needs Linux.
"""
