"""The paper's tables of performance: 4 to 7, and figure 4.

command.py     a table's plan, its measurements, its files: start here
published.py   the paper's figures
epochs.py      tables 4 to 6: epochs of multimodal CASS on one device and on four
graphs.py      table 7: graph networks, with the detector and the encoders apart
forward.py     figure 4: operations of a forward pass, cold and warm
parts.py       what a measurement is: rows, notes, and the machine
"""

from memejax.reproduce.performance.published import TABLES as TABLES
