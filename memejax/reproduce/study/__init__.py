"""A study of curricula: every arm on one data set, the same seeds, one page.

arms.py     what is run: the arms of a data set, and which are the primary family
collect.py  finished runs -> report.study.Study
command.py  runs what is missing, writes tables and page
"""
