"""Numbers in text files and on the command line are in plain digits: Python's int() and float() take more."""

import numpy as np
import pytest

import amstel
from amstel._numerals import parsed
from amstel.apps.restoration.given import read_kernel
from amstel.cli import _values as values
from amstel.data import _tubes
from amstel.data.sequences import read_rows
from tests.command import is_refused

#: 10, as Python reads it too.
ODD = ("1_0", "١٠", "１０")


def test_only_plain_numbers_are_parsed():
    assert [parsed(text) for text in ("10", "-1.5e3", ".5", "inf")] == [10, -1500, 0.5, float("inf")]
    assert parsed("+7", int) == 7
    for text in (*ODD, " 1", "1\n", "\u00a01", "", "one"):
        for kind in (int, float):
            with pytest.raises(ValueError):
                parsed(text, kind)


@pytest.mark.parametrize("ten", ODD)
def test_times_boxes_and_lists(tmp_path, ten):
    def written(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    written("thumos/Diving_test.txt", f"v {ten} 11\n")
    with pytest.raises(ValueError, match=r'line 1 must be "video begin end" in seconds'):
        amstel.data.THUMOS14(tmp_path / "thumos")
    for columns, text in ((4, f"{ten},1,2,2\n"), (None, f"{ten},1,2,2\n"), (None, f"m0,0,{ten},3,1,1\n")):
        with pytest.raises(ValueError, match="line 1: a line must hold 4 numbers"):
            read_rows(written("boxes.txt", text), columns)
    written("kinetics/train.csv", f"label,youtube_id,time_start,time_end\nyoga,c,{ten},20\n")
    with pytest.raises(ValueError, match=r"train\.csv, line 2 must have the columns"):
        amstel.data.SplitClips(tmp_path / "kinetics")
    written("ucf/trainlist01.txt", "YoYo/v.avi 10\n")
    written("ucf/classInd.txt", f"{ten} YoYo\n")
    with pytest.raises(ValueError, match=r"classInd\.txt, line 1 must be a new number and a class"):
        amstel.data.SplitClips(tmp_path / "ucf")
    for span, width in ((f"1:{ten}", "4"), ("1:10", ten)):
        box = f'<bbox framespan="{span}" x="1" y="1" width="{width}" height="4"/>'
        person = (
            f'<object name="PERSON" framespan="1:12"><attribute name="Location">{box}</attribute></object>'
        )
        file = written("Diving/v.xgtf", f'<viper><sourcefile filename="v">{person}</sourcefile></viper>')
        with pytest.raises(ValueError, match=r"v\.xgtf must be a file of the ViPER tool"):
            _tubes.read(file.parents[1])


@pytest.mark.parametrize("ten", ODD)
def test_headers_of_scans(tmp_path, ten):
    from amstel.data.mri import ismrmrd, read_scan

    np.zeros(120, "<c8").tofile(tmp_path / "k.cfl")
    (tmp_path / "k.hdr").write_text(f"# Dimensions\n12 {ten} 1 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"k\.hdr must give the dimensions of"):
        read_scan(tmp_path / "k.cfl")
    matrix = "<matrixSize><x> 12 </x><y>{}</y><z>1</z></matrixSize>".format
    limits = "<encodingLimits><kspace_encoding_step_1><center>{}</center></kspace_encoding_step_1></encodingLimits>"
    for y, center, said in (
        (ten, "5", "matrix of its encodedSpace in integers"),
        ("10", ten, "center of its kspace_encoding_step_1 in integers"),
    ):
        spaces = "".join(f"<{s}>{matrix(y)}</{s}>" for s in ("encodedSpace", "reconSpace"))
        xml = f"<h><encoding>{spaces}{limits.format(center)}</encoding></h>"
        with pytest.raises(
            ValueError, match=rf"a\.h5: the header of ISMRMRD must give the {said}, got '{ten}'"
        ):
            ismrmrd.sizes(tmp_path / "a.h5", xml)


@pytest.mark.parametrize("ten", ODD)
def test_the_command_line(capsys, tmp_path, ten):
    with pytest.raises(ValueError, match="--kernel must be disk:RADIUS"):
        read_kernel(f"disk:{ten}")
    assert not values.is_number(ten)
    (tmp_path / "a.txt").touch()
    for option, text in (("--seeds", ten), ("--dropout", ten), ("--fanouts", f"{ten},5")):
        is_refused(capsys, ["graphs", "train", option, text], f"{option} should be")
    is_refused(
        capsys, ["track", "predict", tmp_path, "--box", f"{ten},1,2,3"], "--box should be four numbers"
    )
    is_refused(capsys, ["track", "evaluate", "--interval", f"{ten},755"], "--interval should be two numbers")
    assert values.box("1, 2, 3, 4") == [1, 2, 3, 4]
