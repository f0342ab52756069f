"""The end-to-end portfolio experiment: predict, optimize, learn (tables 4 and 6 of the paper).

`data` is the interface to a market, `synthetic`, `sp500` and `qlib_data` fill it; `problem` is the
optimization of a day, `model` the predictor, `train` the learning loop; `metrics` and
`significance` judge; `experiment` runs everything from one configuration.
"""
