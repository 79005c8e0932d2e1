"""Networks on graphs of memes, one module for each kind of graph.

stored.py        one graph per meme, of stored features
end_to_end.py    the same graphs, with their encoders trained along; its data in
                 end_to_end_data.py
hetero.py        one graph over all memes
networks.py      their networks, by name
supervised.py    parts of all of them: the store, one update
pictures.py      graphs of some memes with what a network attends to
"""
