"""k-space from the files of fastMRI, ISMRMRD, BART, MATLAB and NumPy, written here as those write them."""

import zipfile

import numpy as np
import pytest
import torch

from amstel.data.mri import estimate_sensitivities, read_maps, read_scan
from amstel.reference.mri import fft2, ifft2

RNG = np.random.default_rng(0)
STACK = (RNG.normal(size=(3, 4, 12, 10)) + 1j * RNG.normal(size=(3, 4, 12, 10))).astype(np.complex64)


def test_numpy(tmp_path):
    for name, array in {"stack": STACK, "slice": STACK[0], "coil": STACK[0, 0]}.items():
        np.save(tmp_path / f"{name}.npy", array.astype(np.complex128))
        scan = read_scan(tmp_path / f"{name}.npy")
        assert scan.kspace.dtype == torch.complex64 and scan.mask is None
        np.testing.assert_array_equal(scan.kspace, array.reshape((1,) * (4 - array.ndim) + array.shape))
    np.save(tmp_path / "parts.npy", np.stack([STACK.real, STACK.imag], -1))
    np.testing.assert_array_equal(read_scan(tmp_path / "parts.npy").kspace, STACK)
    mask = np.arange(10) % 3 == 0
    np.savez(tmp_path / "a.npz", kspace=STACK, maps=STACK[0], mask=mask[None, :, None])
    scan = read_scan(tmp_path / "a.npz")
    np.testing.assert_array_equal(scan.kspace, STACK)
    np.testing.assert_array_equal(scan.mask, mask)
    np.savez(tmp_path / "b.npz", something=STACK[0])
    assert read_scan(tmp_path / "b.npz").kspace.shape == (1, 4, 12, 10)


def test_what_was_not_sampled(tmp_path):
    """Zeros and NaN in all coils; points and columns."""
    columns, points = np.arange(10) % 3 == 0, RNG.random((12, 10)) > 0.4
    for mask in (columns, points):
        for empty in (0, np.nan):
            np.save(tmp_path / "a.npy", np.where(mask, STACK, empty))
            np.testing.assert_array_equal(read_scan(tmp_path / "a.npy").mask, mask)
    other = np.where(columns, STACK, 0)
    other[1] = np.where(points, STACK[1], 0)
    np.save(tmp_path / "a.npy", other)
    with pytest.raises(ValueError, match="the same samples in every slice"):
        read_scan(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", 0 * STACK)
    with pytest.raises(ValueError, match="not zero everywhere"):
        read_scan(tmp_path / "a.npy")


@pytest.mark.parametrize("order", ["coils first", "coils last"])
def test_matlab(tmp_path, order):
    savemat = pytest.importorskip("scipy.io").savemat
    last = order == "coils last"
    for array in (STACK[0], STACK):
        axes = ((1, 2, 0) if array.ndim == 3 else (2, 3, 1, 0)) if last else tuple(range(array.ndim))
        savemat(tmp_path / "a.mat", {"ksp": array.transpose(axes), "mask": np.ones(10)})
        np.testing.assert_array_equal(read_scan(tmp_path / "a.mat").kspace, array.reshape(-1, 4, 12, 10))
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as file:
        axes = (2, 3, 1, 0) if last else (0, 1, 2, 3)
        array = STACK.transpose(axes).T  # as MATLAB lays it down
        pairs = np.empty(array.shape, [("real", "f4"), ("imag", "f4")])
        pairs["real"], pairs["imag"] = array.real, array.imag
        file["kspace"] = pairs
    with (tmp_path / "b.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    np.testing.assert_array_equal(read_scan(tmp_path / "b.mat").kspace, STACK)
    savemat(tmp_path / "c.mat", {"kspace": STACK[0, :, :4, :4]})
    with pytest.raises(ValueError, match="fewer coils than rows"):
        read_scan(tmp_path / "c.mat")


@pytest.mark.parametrize("dtype", ["f2", "f8", "i1", ">i2", "i4"])
@pytest.mark.parametrize("records", [False, True])
def test_parts_are_the_complex_numbers(tmp_path, dtype, records):
    """Pairs and records of every format and rank have the axes that complex numbers have."""
    stack = RNG.integers(-100, 100, (2, 3, 4, 12, 10)).astype(dtype)
    wanted = stack[0].astype("f8") + 1j * stack[1].astype("f8")
    if records:
        parts = np.empty(wanted.shape, [("real", dtype), ("imag", dtype)])
        parts["real"], parts["imag"] = stack
    else:
        parts = np.stack(list(stack), -1)

    def check(name, expected):
        np.testing.assert_array_equal(read_scan(tmp_path / name).kspace, expected)

    h5py = pytest.importorskip("h5py")
    savemat = pytest.importorskip("scipy.io").savemat
    for given, expected in ((parts, wanted), (parts[0], wanted[:1])):
        np.save(tmp_path / "a.npy", given)
        np.savez(tmp_path / "a.npz", kspace=given, other=np.ones((5, 5, 5)))
        check("a.npy", expected)
        check("a.npz", expected)
        axes = (2, 3, 1, 0) if len(expected) > 1 else (1, 2, 0)
        given = given.transpose(axes if records else (*axes, len(axes)))
        if not records and dtype != "f2":  # which MATLAB has not
            savemat(tmp_path / "a.mat", {"kspace": given, "image": np.ones((8, 8, 8), complex)})
            check("a.mat", expected)
        with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as file:
            file["kspace"] = given.T
        with (tmp_path / "b.mat").open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file")
        check("b.mat", expected)
    for given, expected in ((parts, wanted), (parts[:, 0], wanted[:, :1])):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["kspace"] = given
        check("a.h5", expected)


def header(encoded, recon, centers=(5, 0), trajectory="cartesian"):
    def matrix(name, size):
        axes = "".join(f"<{a}>{n}</{a}>" for a, n in zip("xyz", size, strict=True))
        return f"<{name}><matrixSize>{axes}</matrixSize></{name}>"

    limits = "".join(
        f"<kspace_encoding_step_{k + 1}><minimum>0</minimum><maximum>9</maximum><center>{c}</center></kspace_encoding_step_{k + 1}>"
        for k, c in enumerate(centers)
    )
    body = matrix("encodedSpace", encoded) + matrix("reconSpace", recon)
    body += f"<encodingLimits>{limits}</encodingLimits><trajectory>{trajectory}</trajectory>"
    return f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>{body}</encoding></ismrmrdHeader>'


def test_fastmri(tmp_path):
    h5py = pytest.importorskip("h5py")
    mask = np.arange(10) % 3 == 0
    with h5py.File(tmp_path / "multi.h5", "w") as file:
        file["kspace"], file["mask"] = np.where(mask, STACK, 0), mask.astype(np.float32)
        file["reconstruction_rss"] = np.ones((3, 6, 8), np.float32)
        file["ismrmrd_header"] = header((12, 10, 1), (6, 8, 1))
    scan = read_scan(tmp_path / "multi.h5")
    np.testing.assert_array_equal(scan.kspace, np.where(mask, STACK, 0))
    np.testing.assert_array_equal(scan.mask, mask)
    assert scan.image_size == (6, 8) and scan.cropped(torch.ones(12, 10)).shape == (6, 8)
    smaller = scan.without_oversampling()
    assert smaller.kspace.shape == (3, 4, 6, 10) and not smaller.kspace[..., ~mask].any()
    expected = ifft2(scan.kspace, centered=True)[..., 3:9, :]
    torch.testing.assert_close(ifft2(smaller.kspace, centered=True), expected, atol=1e-5, rtol=1e-4)
    with h5py.File(tmp_path / "single.h5", "w") as file:
        file["kspace"] = STACK[:, 0]
    assert read_scan(tmp_path / "single.h5").kspace.shape == (3, 1, 12, 10)


HEAD = np.dtype(
    [
        ("flags", "<u8"),
        ("number_of_samples", "<u2"),
        ("active_channels", "<u2"),
        ("discard_pre", "<u2"),
        ("discard_post", "<u2"),
        ("center_sample", "<u2"),
        ("encoding_space_ref", "<u2"),
        (
            "idx",
            [
                (name, "<u2")
                for name in (
                    "kspace_encode_step_1",
                    "kspace_encode_step_2",
                    "average",
                    "slice",
                    "contrast",
                    "phase",
                    "repetition",
                    "set",
                )
            ],
        ),
    ]
)


def acquisitions(path, lines, xml):
    """Lines (flags, slice, step 1, step 2, data [coils, samples], more) as the library ismrmrd writes them."""
    h5py = pytest.importorskip("h5py")
    floats = h5py.vlen_dtype(np.float32)
    kind = np.dtype([("head", HEAD), ("traj", floats), ("data", floats)])
    records = np.zeros(len(lines), kind)
    for record, (flags, number, one, two, data, more) in zip(records, lines, strict=True):
        head = record["head"]
        head["flags"], head["number_of_samples"], head["active_channels"] = flags, data.shape[1], len(data)
        head["center_sample"] = data.shape[1] // 2
        for name, value in {
            "slice": number,
            "kspace_encode_step_1": one,
            "kspace_encode_step_2": two,
            **more,
        }.items():
            (head if name in HEAD.names else head["idx"])[name] = value
        record["traj"] = np.zeros(0, np.float32)
        record["data"] = np.ascontiguousarray(data).view(np.float32).reshape(-1)
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("data", data=records)
        group.create_dataset("xml", data=[xml], dtype=h5py.string_dtype())


def test_ismrmrd(tmp_path):
    path, mask = tmp_path / "a.h5", np.arange(10) % 2 == 1
    bit = lambda n: 1 << (n - 1)  # noqa: E731
    lines = [(bit(19), 0, 0, 0, STACK[0, :, :, 0], {})]  # noise
    for k in np.flatnonzero(mask):
        for number in (0, 1, 2):
            last = bit(25) if k == 9 and number == 2 else 0
            lines.append((last, number, k, 0, STACK[number, :, :, k] * 2, {"average": 0}))
            lines.append((bit(22), number, k, 0, 0 * STACK[number, :, ::-1, k], {"average": 1}))
    # Calibration counts where nothing else was measured, here column 4.
    for number in (0, 1, 2):
        lines += [(bit(20), number, k, 0, 7 * STACK[number, :, :, k], {}) for k in (4, 5)]
    acquisitions(path, lines, header((12, 10, 1), (6, 10, 1)))
    scan = read_scan(path)
    expected = np.where(mask, STACK, 0)
    expected[..., 4] = 7 * STACK[..., 4]
    np.testing.assert_allclose(scan.kspace, expected, rtol=1e-6)
    np.testing.assert_array_equal(scan.mask, mask | (np.arange(10) == 4))
    assert scan.image_size == (6, 10)
    # The center of the lines at step 3 of 8, shorter lines, all measured.
    lines = [(0, 0, k, 0, STACK[0, :, 2:10, k + 2], {}) for k in range(8)]
    acquisitions(path, lines, header((12, 10, 1), (12, 10, 1), centers=(3, 0)))
    found = read_scan(path)
    expected = np.zeros_like(STACK[:1])
    expected[0, :, 2:10, 2:] = STACK[0, :, 2:10, 2:]
    np.testing.assert_allclose(found.kspace, expected)
    np.testing.assert_array_equal(found.mask, expected[0, 0] != 0)  # what the lines leave out is not measured
    # A volume: partitions become slices.
    volume = STACK.transpose(1, 0, 2, 3)  # coils, partitions, readout, lines
    lines = [(0, 0, k, z, volume[:, z, :, k], {}) for z in range(3) for k in range(10)]
    acquisitions(path, lines, header((12, 10, 3), (12, 10, 3), centers=(5, 1)))
    wanted = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(STACK, axes=0), axis=0, norm="ortho"), axes=0)
    np.testing.assert_allclose(read_scan(path).kspace, wanted, atol=1e-5)
    acquisitions(path, lines, header((12, 10, 3), (12, 10, 1), centers=(5, 1)))
    np.testing.assert_allclose(read_scan(path).kspace, wanted[1:2], atol=1e-5)  # oversampled in slices
    for bad, xml, message in (
        (lines[:-1], header((12, 10, 3), (12, 10, 3), (5, 1)), "same samples in every slice and partition"),
        (
            [(0, 0, 0, 0, STACK[0, :, :, 0], {"contrast": c}) for c in (0, 1)],
            header((12, 10, 1), (12, 10, 1)),
            "one contrast",
        ),
        (lines[:1], header((12, 10, 1), (12, 10, 1), trajectory="spiral"), "cartesian, got spiral"),
        ([(bit(19), 0, 0, 0, STACK[0, :, :, 0], {})], header((12, 10, 1), (12, 10, 1)), "got none"),
        (
            [(0, 0, 9, 0, STACK[0, :, :, 0], {})],
            header((12, 10, 1), (12, 10, 1), (3, 0)),
            "within its matrix",
        ),
    ):
        acquisitions(path, bad, xml)
        with pytest.raises(ValueError, match=message):
            read_scan(path)


def test_ismrmrd_discards_samples_and_lines_of_something_else(tmp_path):
    path, k = tmp_path / "a.h5", STACK[0]
    cut = {"discard_pre": 3, "discard_post": 1}
    front, back = k.copy(), k.copy()
    front[:, :3] = front[:, 11:] = back[:, :1] = back[:, 9:] = 1e3
    whole = [(0, 0, n, 0, k[:, :, n], {}) for n in range(10)]
    xml = header((12, 10, 1), (12, 10, 1))
    for flag, given, kept in ((0, front, slice(3, 11)), (1 << 21, back[:, ::-1], slice(1, 9))):
        acquisitions(path, [(flag, 0, n, 0, given[:, :, n], cut) for n in range(10)], xml)
        expected = np.zeros_like(k)
        expected[:, kept] = k[:, kept]
        np.testing.assert_array_equal(read_scan(path).kspace[0], expected)
        np.testing.assert_array_equal(read_scan(path).mask, expected[0] != 0)
    for flag, more in ((1 << 29, {}), (1 << 30, {}), (0, {"encoding_space_ref": 1})):
        acquisitions(path, whole + [(flag, 0, n, 0, 1e3 + 0 * k[:, :, n], more) for n in range(10)], xml)
        np.testing.assert_array_equal(read_scan(path).kspace[0], k)


@pytest.mark.parametrize("size", [12, 11])
@pytest.mark.parametrize("first", [0, 3])
def test_the_center_of_a_reversed_line_is_counted_as_its_samples_come(tmp_path, size, first):
    """Whole lines and asymmetric echoes, in turn forward and backward, as of a bipolar readout."""
    path, k = tmp_path / "a.h5", STACK[0][:, :size]
    center, lines = size // 2 - first, []
    for n in range(10):
        line = k[:, first:, n]
        back = {"center_sample": size - first - 1 - center}
        lines.append(
            (1 << 21, 0, n, 0, line[:, ::-1], back)
            if n % 2
            else (0, 0, n, 0, line, {"center_sample": center})
        )
    acquisitions(path, lines, header((size, 10, 1), (size, 10, 1)))
    expected = np.where(np.arange(size)[:, None] >= first, k, 0)
    np.testing.assert_array_equal(read_scan(path).kspace[0], expected)


def test_a_mask_on_top_is_of_0_and_1(tmp_path):
    np.save(tmp_path / "k.npy", STACK)
    scan = read_scan(tmp_path / "k.npy")
    ones = torch.arange(10) % 2
    for mask in (ones, ones.bool(), ones.double()):
        found = scan.sampled_by(mask)
        assert found.mask.dtype == torch.bool and torch.equal(found.mask, ones.bool())
        assert torch.equal(found.sampled_by(torch.ones(12, 10)).mask, ones.bool().expand(12, 10))
    for bad in (ones / 2, ones - 1, ones * torch.nan, ones[1:], ones[:, None]):
        with pytest.raises(ValueError, match=r"`mask` must be \[10\] or \[12, 10\] of 0 and 1, got"):
            scan.sampled_by(bad)
    with pytest.raises(TypeError, match="`mask` must be"):
        scan.sampled_by(ones.numpy())


def bart(path, array, dims):
    path.with_suffix(".hdr").write_text(
        "# Dimensions\n" + " ".join(map(str, dims)) + " \n# Command\nphantom -k\n"
    )
    np.asarray(array, "<c8").flatten(order="F").tofile(path)


def test_bart(tmp_path):
    path = tmp_path / "k.cfl"
    bart(path, STACK[0].transpose(1, 2, 0), [12, 10, 1, 4] + 12 * [1])
    np.testing.assert_array_equal(read_scan(path).kspace, STACK[:1])
    bart(path, STACK[0].transpose(1, 2, 0), [1, 12, 10, 4])
    np.testing.assert_array_equal(read_scan(path).kspace, STACK[:1])
    bart(path, STACK.transpose(2, 3, 1, 0), [12, 10, 1, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3])
    np.testing.assert_array_equal(read_scan(path).kspace, STACK)
    bart(path, STACK.transpose(0, 2, 3, 1), [3, 12, 10, 4])  # a volume, its readout first
    wanted = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(STACK, axes=0), axis=0, norm="ortho"), axes=0)
    np.testing.assert_allclose(read_scan(path).kspace, wanted, atol=1e-5)
    for dims, message in (
        ([12, 10, 1, 5], "must give the dimensions"),
        ([12, 10, 1, 2, 1, 2], "no dimensions but"),
    ):
        bart(path, STACK[0].transpose(1, 2, 0), dims)
        with pytest.raises(ValueError, match=message):
            read_scan(path)
    path.with_suffix(".hdr").unlink()
    with pytest.raises(FileNotFoundError, match=r"k\.hdr"):
        read_scan(path)


def test_maps_may_be_zero_where_they_like(tmp_path):
    maps = STACK * (RNG.random((3, 1, 12, 10)) > 0.5)
    np.save(tmp_path / "maps.npy", maps)
    np.testing.assert_array_equal(read_maps(tmp_path / "maps.npy"), maps)


def test_maps_are_images(tmp_path):
    """Those of a volume are not transformed, and no format has one coil in three dimensions."""
    bart(tmp_path / "maps.cfl", STACK.transpose(0, 2, 3, 1), [3, 12, 10, 4])
    np.testing.assert_array_equal(read_maps(tmp_path / "maps.cfl"), STACK)
    np.save(tmp_path / "maps.npy", STACK[0])
    np.savez(tmp_path / "maps.npz", kspace=STACK, maps=STACK[0], mask=np.zeros(3))
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file["maps"], file["kspace"] = STACK[0], STACK
    for ending in ("npy", "npz", "h5"):
        np.testing.assert_array_equal(read_maps(tmp_path / f"maps.{ending}"), STACK[:1])
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["maps"] = STACK
    np.testing.assert_array_equal(read_maps(tmp_path / "stack.h5"), STACK)
    acquisitions(
        tmp_path / "scan.h5", [(0, 0, 0, 0, STACK[0, :, :, 0], {})], header((12, 10, 1), (12, 10, 1))
    )
    np.savez(tmp_path / "two.npz", kspace=STACK, other=STACK)
    for name, message in (("scan.h5", "got the acquisitions"), ("two.npz", "one array called sensitivities")):
        with pytest.raises(ValueError, match=message):
            read_maps(tmp_path / name)


def test_what_is_no_scan(tmp_path):
    np.savez(tmp_path / "a.npz", one=STACK, two=STACK)
    np.save(tmp_path / "real.npy", STACK.real)
    np.save(tmp_path / "last.npy", np.ones((32, 24, 4), np.complex64))
    for name, text in (("a.txt", "x"), ("a.h5", "x"), ("a.mat", "x"), ("a.npy", "x")):
        (tmp_path / name).write_text(text)
    for name, message in (
        ("a.npz", "one array called kspace, got one complex64"),
        ("real.npy", "must hold complex k-space"),
        ("last.npy", r"must have its coils first, .* got complex64 \[1, 32, 24, 4\]"),
        ("a.txt", "must end in one of .npy"),
        ("a.h5", "not a readable HDF5 file"),
        ("a.mat", "not a readable MATLAB file"),
        ("a.npy", "must be a file of NumPy"),
    ):
        with pytest.raises(ValueError, match=message):
            read_scan(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_scan(tmp_path / "nothing.h5")


def test_oversampling_of_columns_is_taken_off_exactly():
    """Undersampling along the columns and the readout have nothing to do with each other."""
    from amstel.data.mri import Scan

    x = torch.zeros(1, 2, 16, 10, dtype=torch.complex64)
    x[..., 4:12, :] = torch.randn(1, 2, 8, 10, dtype=torch.complex64)
    mask = torch.arange(10) % 2 == 0
    scan = Scan(fft2(x, centered=True) * mask, mask, (8, 10)).without_oversampling()
    torch.testing.assert_close(scan.kspace, fft2(x[..., 4:12, :], centered=True) * mask, atol=1e-5, rtol=1e-4)
    points = Scan(scan.kspace, torch.rand(8, 10) > 0.5, (4, 10))
    assert points.without_oversampling() is points


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e20])
def test_sensitivities_of_any_scale(scale):
    kspace = torch.randn(4, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    found = estimate_sensitivities(kspace * scale)
    torch.testing.assert_close(found.abs().square().sum(-3), torch.ones(16, 16))


def test_headers_that_claim_more_than_is_there(tmp_path):
    """They are refused before as much memory is taken."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", shape=(8, 100000, 1000), dtype="<c8", chunks=(1, 100, 100))
    with pytest.raises(ValueError, match=r"a\.h5 must hold what its header says, .* for kspace in 0 bytes"):
        read_scan(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:  # much, and packed well, is no damage
        packed = file.create_dataset("kspace", shape=(1, 1024, 4096), dtype="<c8", compression="gzip")
        packed[0, :, 7] = 1
        stored = packed.id.get_storage_size()
    assert 32 * 2**20 > 100 * stored and read_scan(tmp_path / "a.h5").kspace.sum() == 1024
    lines = [(0, 0, 0, 0, STACK[0, :, :, 0], {})]
    for size in ((12, 1000000, 1), (30000, 30000, 30000), (0, 10, 1)):
        acquisitions(tmp_path / "b.h5", lines, header(size, (12, 10, 1)))
        with pytest.raises(
            ValueError, match=rf"b\.h5 must have a matrix .* its 12 samples .*got {size[0]} x"
        ):
            read_scan(tmp_path / "b.h5")
    (tmp_path / "c.cfl").write_bytes(b"")
    (tmp_path / "c.hdr").write_text("# Dimensions\n65536 65536 65536 65536\n")  # 2^64, which is 0 in 64 bits
    with pytest.raises(ValueError, match=r"c\.hdr must give the dimensions of .*c\.cfl"):
        read_scan(tmp_path / "c.cfl")
    for name in ("d.npy", "d.npz"):
        with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive, open(tmp_path / "d.npy", "wb") as file:
            facts = {"descr": "<c8", "fortran_order": False, "shape": (80, 10**6, 10**6)}
            np.lib.format.write_array_header_1_0(file, facts)
            file.flush()
            archive.write(tmp_path / "d.npy", "kspace.npy")
        with pytest.raises(ValueError, match=rf"{name} does not fit into memory, or its header is damaged"):
            read_scan(tmp_path / name)
