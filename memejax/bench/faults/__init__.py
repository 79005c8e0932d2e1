"""Faults injected on purpose, and what memejax makes of them.

    python -m memejax.bench.faults [--part NAME ...] [--cases N] [--seed N]

kills         SIGKILL at random times until the run is finished; its results equal those
              of an undisturbed one, bit for bit
checkpoints   the last checkpoint damaged: noticed, resumed from the one before, to the
              same results; the best one damaged: refused
values        wrong values of a config's leaves: one line that names the leaf, no folder
              claimed; allowed ones train
inputs        damaged memes, pictures, weights, tokenizers and stores: named or read
starts        two starts on one folder, one store, one output
disk          a disk that fills up: one line, and the same command finishes later

Everything is drawn from --seed. A case that ends in a traceback, takes over a minute
where it should be refused, or gives other results is listed with what to repeat.

    report.py       cases, and their table
    runs.py         the small runs that the faults are injected into
    kills.py, checkpoints.py, values.py, inputs.py, starts.py   a part or two each
"""
