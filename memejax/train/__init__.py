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
    parallel/    devices; device_placement.py puts every array where it lies
    scoring.py   probabilities of a split
    checkpoint.py folder.py logs.py   what a run writes
    restored.py  what a finished run learned

Below them is the library: losses/, augment/, models/, steps/ (one update), optim/,
curriculum/, graphs/, metrics/, explain/, weights/. One update of multimodal CASS goes
through stages/pretrain.py, loop.py, steps/cass.py, steps/update.py, losses/cass.py.

Here:

    run.py       run, from the config to the results
    results.py   the contents of results.json, with the summary over seeds
    starts.py    seconds and memory of all starts of a resumed run

Everything is resumable: each stage restores its last checkpoint, and a stage that
ended has an outcome.json and is not run again.
"""

from memejax.train.run import run as run
