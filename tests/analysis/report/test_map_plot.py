from dataclasses import replace

from analysis.find import find
from analysis.report.map_plot import map_plot


def test_a_large_map_has_a_colour_bar_in_place_of_numbers(make_runs, monkeypatch):
    bars, texts = [], []
    monkeypatch.setattr("matplotlib.axes.Axes.text", lambda self, x, y, text, **_: texts.append(text))
    monkeypatch.setattr("matplotlib.figure.Figure.colorbar", lambda self, *_, label, **__: bars.append(label))
    small = replace(find(make_runs()), topics=[])
    assert map_plot(small).name == "map_learning_rate_focal_gamma"
    assert (len(texts), bars) == (2 * 4, [])
    texts.clear()
    rates = tuple(0.001 * (n + 1) for n in range(7))  # one more than there is room for
    map_plot(find(make_runs(levels=((10, 50), rates, (0.0, 2.0)), num_seeds=2)))
    assert (texts, bars) == ([], ["val/miou"])
