"""Stages, in order, for each seed. Read this first; it is the map.

    main.py      flags -> config -> train.run(config, workdir)
    train/       run: the data, then for each seed the stages in order, the results
    stages/      the stages: one file each (pretrain, probe, finetune, graph, evaluate,
                 classify), `STAGES` their table; parts/ from a config's sections to
                 models, optimizers, views, plans
    stage.py     Stage: everything that the loop needs
    loop.py      the one loop: chunks in, state on; metrics, checkpoints, signals
    datasets/    config.data -> Data (splits as columns)
    feeders.py   chunks for the loop, made of data/pipeline.py and data/plans.py
    store/       features of memes on disk
    parallel/    devices; device_placement.py puts arrays on them
    scoring.py   probabilities of a split
    checkpoint.py folder.py logs.py   the files of a run
    console.py   lines and the live bar
    restored.py  a finished run, read again

Below them is the library: losses/, augment/, models/, steps/ (one update), optim/,
curriculum/, graphs/, metrics/, explain/, weights/. One update of multimodal CASS goes
through stages/pretrain.py, loop.py, steps/cass.py, steps/update.py, losses/cass.py.

Here:

    run.py            run, from the config to the results
    announcement.py   the first lines: experiment, devices, duration, plan
    results.py        the contents of results.json, with the summary over seeds
    starts.py         seconds and memory of all starts of a resumed run

Everything is resumable: each stage restores its last checkpoint, and a stage that has
ended has an outcome.json and is not run again.
"""

from memejax.train.run import run as run
