"""`make run`: everything on this machine, under a supervisor that starts again what dies.

    environment.py  from the caller's environment to that of the parts
    supervisor.py   supervisord with the parts of the Procfile, and what it says on the terminal
    aws.py          a program: the local AWS
    wait.py         a program: wait until addresses answer, then run a command until it works
    __main__.py     puts them together

The state lies in `.data/` of the current directory, as the Procfiles do.
"""
