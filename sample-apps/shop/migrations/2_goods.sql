insert into product (id, name, cents, stock) values
    (1, 'Anchor', 12900, 5),
    (2, 'Mooring rope, 10 m', 2450, 40),
    (3, 'Fender', 1990, 25),
    (4, 'Signal flag', 790, 100),
    (5, 'Brass bell', 4900, 1);
