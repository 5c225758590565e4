from protocol.native import search_path

__path__ = search_path(__name__, __path__)
