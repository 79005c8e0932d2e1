"""Networks on graphs of memes, one module for each kind of graph.

stored.py        one graph per meme, on stored features
end_to_end.py    the same graphs, trained jointly with their encoders; data in
                 end_to_end_data.py
hetero.py        one graph over all memes
networks.py      networks by name
supervised.py    shared parts: the store, one update
pictures.py      drawings of some graphs with the network's attention
"""
