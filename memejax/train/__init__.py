"""Stages, in order, for each seed. Read this first; it is the map.

    main.py     flags -> config -> train.run(config, workdir)
    train/      run: data, then for each seed the stages in order, then the summary
                  pretrain   multimodal CASS, CASS or DINO; no labels
                  probe      what the pretrained features are worth, with pictures
                  finetune   the labels, from the pretrained arms or from scratch
                  evaluate   the best checkpoint on every split
                or, of stored features, in place of all before evaluate
                  graph      a network on the memes' graphs
                or, of small pictures, all seeds at once
                  classify   a classifier under a curriculum (classify.py)
    loop/       the one loop: chunks in, state on, metrics out, checkpoints, signals
    dataset.py  config -> Data (splits as columns)
    build/      config -> Stage (state, compiled step, feeder)
    steps/      what one update computes, of losses/, views.py and augment/
    feeders.py  what the loop eats, made of data/pipeline.py and data/plans.py
    parallel/   devices
    evaluate.py what a checkpoint's features are worth; scores.py probabilities
    folder.py   the run's folder; logs.py what it says; report/ its page

Here:

    experiment.py  run, from the config to the results
    stages.py      the stages of one seed, each with the pieces in context.py
    judgement.py   the dev split while a stage runs, every split when it ended
    results.py     what results.json holds, with the summary over seeds
    starts.py      what the starts of a resumed run took together
    about.py       a run's first lines

Everything is resumable: each stage restores its last checkpoint, and a stage that
ended has an outcome.json and is not run again.
"""

from memejax.train.experiment import run as run
