"""A study of curricula: every arm on one data set, with the same seeds, on one page.

arms.py     the arms of a data set, and its primary family
collect.py  finished runs -> report.study.Study
command.py  run missing arms, write tables and page
"""
