"""Pictures: PNG, JPEG, BMP and TIFF files, read by one rule, as every viewer shows them.

Rules of all formats:

    density      never a spacing: dots per inch say how large a picture is printed
    orientation  the picture is turned as its EXIF or TIFF tag says, and results lie on the turned picture
    transparency never a channel; colours that it was multiplied into are divided by it
    palette      colours in an image, indices in a mask
    size         known from the header, and refused there if it is out of proportion to the file
"""
